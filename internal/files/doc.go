// Package files reads, writes and locks files: reads have a size limit, a write is whole or absent even after a crash, a
// lock ends with the process that holds it, and a file with a secret is checked for other users who could read or
// replace it.
//
// The package does not know what the files contain.
package files
