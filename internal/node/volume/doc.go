// Package volume makes the volumes of pods on this machine: what comes from the API on file systems in memory, emptyDir,
// and hostPath, which it only looks at.
//
// A pod's volumes are in ROOT/UID/volumes/KIND/NAME. ROOT can be entered by root alone, so that no other process of the
// machine reaches a file in it by path; containers get theirs as bind mounts. What an earlier agent made is taken over as
// it is, and nothing is removed by following a link or a mount.
//
// The package knows no runtime: that containers see API-backed volumes read-only, and that none runs any more when
// TearDown is called, is its caller's business. It needs Linux.
package volume
