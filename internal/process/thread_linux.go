package process

import (
	"runtime"
)

// thread is one of the system's threads, which does what it is given until it ends. A namespace can be a thread's alone,
// and a process that is to die with its parent dies with the thread that started it.
type thread struct {
	work  chan func()
	ended chan struct{}
}

func newThread() *thread {
	t := &thread{work: make(chan func()), ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		// It is never unlocked, so that the runtime ends the thread instead of using it for something else.
		runtime.LockOSThread()
		for f := range t.work {
			f()
		}
	}()
	return t
}

// do runs f on the thread and returns when it has returned. A panic is the caller's.
func (t *thread) do(f func()) {
	var panicked any
	done := make(chan struct{})
	t.work <- func() {
		defer close(done)
		defer func() { panicked = recover() }()
		f()
	}
	<-done
	if panicked != nil {
		panic(panicked)
	}
}

func (t *thread) end() {
	close(t.work)
	<-t.ended
}
