package pod
import ("testing";"time";"encoding/json";corev1 "k8s.io/api/core/v1")
func TestTmp(t *testing.T){
 for _, q := range []string{"1e300","1e3000","1e30000","1e300000","1e3000000","1e-300000"} {
  var pod corev1.Pod
  s:=time.Now()
  err:=json.Unmarshal([]byte(`{"spec":{"containers":[{"resources":{"limits":{"cpu":"`+q+`"}}}]}}`),&pod)
  d:=time.Since(s); s=time.Now()
  SetDefaults(&pod); Validate(&pod)
  t.Log(q,err,d,time.Since(s))
 }
}
