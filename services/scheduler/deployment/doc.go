// Package deployment is the pure aggregate of one deployment: the state folded
// from its events, the commands it takes, and what must be true in the world
// because of it (desired instances, probe targets). No clock, no random, no I/O:
// times and ids come in with commands and events.
//
// Reading order: state.go (what is known), evolve.go (how events change it),
// decide.go (what commands may do), advance.go (what should happen next by
// itself), wanted.go (what nodes and health must do).
package deployment
