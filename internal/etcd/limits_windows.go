package etcd

// checkLimits finds nothing here: this system has no such limits.
func checkLimits() error { return nil }
