// Package backup writes the state of an authority into one encrypted file, and makes a data directory from such a file.
//
// The file is encrypted by age (age-encryption.org), to a passphrase or to recipients. Inside is a tar archive with these entries,
// in this order:
//
//	manifest.json   Manifest
//	ca.crt, ...     the files of datadir.Essentials
//	etcd.db         a snapshot of etcd
//	SHA256SUMS      the checksums of all entries before, as sha256sum writes them
//
// So the programs age and tar can open a backup without Lanyard. Nothing is held in memory as a whole except the small files.
//
// A restore checks the whole file before anything has its name in the data directory. Tokens from before the restore are refused
// afterwards unless the operator asks for them, since a backup cannot know which of them were revoked later.
//
// The package does not know terminals, or the kinds of the API.
package backup
