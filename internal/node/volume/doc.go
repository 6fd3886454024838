// Package volume makes the volumes of pods on this machine: API-backed volumes on file systems in memory, emptyDir volumes,
// and hostPath volumes, of which it only checks the path.
//
// A pod's volumes are in ROOT/UID/volumes/KIND/NAME. Only root can enter ROOT, so that no other process of the machine
// reaches a file in it by path; containers get their volumes as bind mounts. The package takes over the volumes that an
// earlier agent has made, and never follows a link or enters a mount to remove files.
//
// The package knows no container runtime. Its caller mounts API-backed volumes read-only in containers, and ends all
// containers of a pod before it calls TearDown. The package needs Linux.
package volume
