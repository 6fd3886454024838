// Package tokenvolume makes the files of a pod's API-backed volumes and keeps its tokens fresh: it requests tokens bound to
// the pod, renews them in time, renders config maps, secrets and the downward API, and replaces all files of a volume at
// once.
//
// A volume has the layout of Kubernetes' volumes, on which programs rely:
//
//	token -> ..data/token
//	..data -> ..2026_11_05_10_00_00.123456789
//	..2026_11_05_10_00_00.123456789/token
//
// The package mounts nothing and knows no container runtime: its callers choose the directory and the file system of a
// volume, and the containers that see it. Errors and log lines never contain a token.
package tokenvolume
