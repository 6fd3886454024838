package token

import (
	"errors"
	"fmt"
	"time"
)

// Kubernetes' limits of a TokenRequest's spec.expirationSeconds.
const (
	MinLifetime     = 600 * time.Second
	DefaultLifetime = 3600 * time.Second
	// MaxLifetime is 2^32 seconds, the most that may be asked for.
	MaxLifetime = (1 << 32) * time.Second
)

// Why a requested lifetime is refused; the texts are Kubernetes'.
var (
	ErrLifetimeTooShort = errors.New("may not specify a duration less than 10 minutes")
	ErrLifetimeTooLong  = errors.New("may not specify a duration larger than 2^32 seconds")
)

// LifetimePolicy bounds how long tokens live.
type LifetimePolicy struct {
	// Min is the least that may be asked for; 0 means MinLifetime. Only tests have a reason to set it.
	Min time.Duration
	// Max shortens every longer lifetime; 0 means that none is shortened.
	Max time.Duration
}

// Lifetime returns how long a token asked for with requestedSeconds lives, nil asking for DefaultLifetime. capped says
// that this is shorter than asked for. The error is one about requestedSeconds, fit to show to the client.
func (p LifetimePolicy) Lifetime(requestedSeconds *int64) (lifetime time.Duration, capped bool, err error) {
	seconds := int64(DefaultLifetime / time.Second)
	if requestedSeconds != nil {
		seconds = *requestedSeconds
	}
	if seconds > int64(MaxLifetime/time.Second) {
		return 0, false, ErrLifetimeTooLong
	}
	if seconds < 0 || time.Duration(seconds)*time.Second < p.min() {
		return 0, false, p.tooShort()
	}
	lifetime = time.Duration(seconds) * time.Second
	if p.Max > 0 && lifetime > p.Max {
		return p.Max, true, nil
	}
	return lifetime, false, nil
}

func (p LifetimePolicy) min() time.Duration {
	if p.Min > 0 {
		return p.Min
	}
	return MinLifetime
}

func (p LifetimePolicy) tooShort() error {
	if p.min() == MinLifetime {
		return ErrLifetimeTooShort
	}
	return fmt.Errorf("may not specify a duration less than %v", p.min())
}
