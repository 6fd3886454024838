package translations

// The test is in another package: it imports what must be initialized after this one.
var (
	ErrLate       = errLate
	MayRunKubectl = mayRunKubectl
)
