// Package tokenvolume makes the files of a pod's API-backed volumes and keeps its tokens fresh: it requests tokens bound to
// the pod, renews them in time, renders config maps, secrets and the pod's own fields, and replaces all files of a volume
// at once.
//
// A volume is laid out as Kubernetes lays it out, which programs rely on:
//
//	token -> ..data/token
//	..data -> ..2026_11_05_10_00_00.123456789
//	..2026_11_05_10_00_00.123456789/token
//
// The package mounts nothing and knows no runtime: where a volume's directory is, what file system it is on and which
// container sees it are its callers' business. No token's text is in any of its errors or logs.
package tokenvolume
