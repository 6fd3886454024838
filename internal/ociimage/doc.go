// Package ociimage builds container images without a daemon or a registry. An image contains one static Go program, and files
// that the caller adds. It does not use layers of other images.
package ociimage
