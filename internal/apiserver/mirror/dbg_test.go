package mirror
import ("testing";"time";"fmt";"context";"lanyard.dev/internal/apiserver/registry/storagetest"
"k8s.io/apiserver/pkg/storage")
func TestDbg(t *testing.T){
 base:=storagetest.Start(t)
 m:=New(base,false,accounts)
 st:=accountStore(t,base,m)
 _=st
 f:=m.Feed(accounts)
 list:=f.newList()
 if err:=f.raw.GetList(t.Context(),f.prefix,storage.ListOptions{Predicate:storage.Everything,Recursive:true},list);err!=nil{t.Fatal(err)}
 ctx,c:=context.WithCancel(t.Context()); defer c()
 w,err:=f.raw.Watch(ctx,f.prefix,storage.ListOptions{ResourceVersion:"1",Predicate:everything(),Recursive:true,ProgressNotify:true})
 if err!=nil{t.Fatal(err)}
 go func(){ for i:=0;i<5;i++{ time.Sleep(300*time.Millisecond); fmt.Println("req",f.raw.RequestWatchProgress(ctx)) } ; }()
 for i:=0;i<3;i++{ select{case e:=<-w.ResultChan(): fmt.Println(e.Type,e.Object); case <-time.After(2*time.Second): fmt.Println("none")}}
}
