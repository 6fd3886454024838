package translations

// The test is in an external package, because it imports packages that must be initialized after this one.
var (
	ErrLate       = errLate
	MayRunKubectl = mayRunKubectl
)
