package podman
import ("testing";"fmt";"time";"slices";"sync")
func TestScale(t *testing.T){
  m := newMachine(t, true); image := m.image(t); serial:=0
  measure := func(label string){
    var all []time.Duration
    for range 20 { serial++; a:=m.start(t,image,fmt.Sprintf("m-%d",serial),nil); all=append(all,a.took); m.end(t,a); time.Sleep(50*time.Millisecond)}
    slices.Sort(all)
    began:=time.Now(); var w sync.WaitGroup
    apps:=make([]app,16)
    for n:=range apps { serial++; s:=serial; w.Go(func(){apps[n]=m.start(t,image,fmt.Sprintf("m-%d",s),nil)}) ; if n==7 {w.Wait()} }
    w.Wait(); took:=time.Since(began)
    for _,a:=range apps{m.end(t,a)}
    b:=time.Now(); m.podman.List(t.Context()); l:=time.Since(b)
    fmt.Println(label,"median",all[10],"p95",all[18],"per second at 8:",16/took.Seconds(),"list",l)
  }
  measure("0")
  for n:=range 100 { m.start(t,image,fmt.Sprintf("base-%d",n),nil)}
  measure("100")
  for n:=range 200 { m.start(t,image,fmt.Sprintf("base-%d",100+n),nil)}
  measure("300")
}
