// Package pki makes, stores and renews the certificates of one authority: its
// CA, its serving certificate and its clients' certificates, all ECDSA P-256.
//
// It knows nothing of HTTP, of directories' layout, or of what a client may
// do. Private keys leave it as PEM in 0600 files only; no error holds any part
// of a file's content.
package pki
