package apiserver

import (
	"context"
	"os"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/clock"

	"lanyard.dev/internal/controller/events"
	"lanyard.dev/internal/controller/execlease"
	"lanyard.dev/internal/controller/nodelife"
	"lanyard.dev/internal/controller/orphans"
	"lanyard.dev/internal/controller/scheduler"
)

// workloads are the controllers that what runs on nodes needs.
type workloads struct {
	events    *events.Recorder
	scheduler *scheduler.Controller
	nodelife  *nodelife.Controller
	orphans   *orphans.Controller
	processes *execlease.Controller
}

// watchWorkloads makes the controllers and lets them listen.
func (a *assembly) watchWorkloads() error {
	s, real := a.stores, clock.RealClock{}
	w := &workloads{events: events.New(s.events, s.namespaces.Namespace)}
	scheduling := scheduler.Config{
		Pods: s.pods.Pod, Status: s.pods.Status, Binding: s.pods.Binding, Events: w.events.For(scheduler.Name), Clock: real,
	}
	if !a.options.Etcd.SoleWriter {
		scheduling.Leases, scheduling.Identity = s.leases, identity()
	}
	w.scheduler = scheduler.New(scheduling)
	w.nodelife = nodelife.New(nodelife.Config{
		Nodes: s.nodes, NodeStatus: s.nodeStatus, PodStatus: s.pods.Status, Leases: s.leases, Events: w.events.For(nodelife.Name), Clock: real,
	})
	w.orphans = orphans.New(s.pods.Pod, s.nodes, real)
	w.processes = execlease.New(s.pods.Pod, w.events.For(execlease.Name), real)

	pods, nodes := a.feed("pods"), a.feed("nodes")
	pods.Listen(w.scheduler.PodFeed())
	pods.Listen(w.nodelife.PodFeed())
	pods.Listen(w.orphans.PodFeed())
	pods.Listen(w.processes)
	nodes.Listen(w.scheduler.NodeFeed())
	nodes.Listen(w.nodelife.NodeFeed())
	nodes.Listen(w.orphans.NodeFeed())
	a.mirror.Feed(coordinationv1.Resource("leases")).Listen(w.nodelife.LeaseFeed())
	a.workloads = w
	return nil
}

// identity names this process among the replicas, for people and for leases.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "_" + uuid.NewString()
}

// run runs the controllers until ctx ends.
func (w *workloads) run(ctx context.Context) {
	go w.events.Run(ctx)
	go w.scheduler.Run(ctx)
	go w.nodelife.Run(ctx)
	go w.orphans.Run(ctx)
	go w.processes.Run(ctx)
}
