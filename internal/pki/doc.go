// Package pki makes, stores and renews the certificates of one authority: its CA, its serving certificate and the
// certificates of its clients, all ECDSA P-256. It also reads PEM for the whole program.
//
// It does not know HTTP, the layout of directories, or what a client may do. Private keys are written as PEM to files of
// mode 0600 only. Its errors contain no part of a file's content.
package pki
