// Package atomicfile writes a file so that readers, and a process killed at
// any moment, see either the old content or all of the new.
//
// It knows nothing of what the files hold.
package atomicfile
