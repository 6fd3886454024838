package execlease

// Running tells whether Run has begun.
func (c *Controller) Running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.started.IsZero()
}
