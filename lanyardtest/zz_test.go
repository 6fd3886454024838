package lanyardtest_test
import ("testing";"runtime/pprof";"os";"time";"lanyard.dev/lanyardtest")
func TestZZ(t *testing.T) {
	a := lanyardtest.Start(t)
	a.CreateServiceAccount(t, "default", "x")
	whoAmI(t, clientFor(t, a.As(t, "default", "x")))
	go func(){ time.Sleep(500*time.Millisecond); f,_:=os.Create("/tmp/lt/stacks"); pprof.Lookup("goroutine").WriteTo(f,1); f.Close() }()
	s:=time.Now()
	a.Stop(t)
	t.Log(time.Since(s))
}
