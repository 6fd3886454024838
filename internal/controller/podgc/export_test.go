package podgc

// Running reports whether Run has begun.
func (c *Processes) Running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.started.IsZero()
}
