package event

import "time"

// TTL is how long an event is kept.
const TTL = time.Hour
