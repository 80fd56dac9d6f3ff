// Package sim runs the control plane in one process, in virtual time, and decides
// everything that is left to chance from one seed: who is next, what is late, what
// fails, what crashes between which two steps, what operators ask for.
//
// The parts are the real ones: scheduler.Service with its commands, reactor, names
// and views; proxyconfig.Service; health.Service; nodeagent.Service over the fake
// runtime; the edge's route table; the log in memory. They run as they do in
// production, goroutines and all, but every call that leaves a part (an append, a
// put, a probe, a delivery, a container's start) waits in a gate. One call at a time
// is let through, when nothing else can move, so the order is the seed's.
//
// Reading order: plan.go (what happens), world.go (who is there), gate.go (who is
// next), store.go, bucket.go, machine.go (the parts' surroundings), check.go (what
// must hold), shrink.go.
package sim
