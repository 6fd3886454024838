// Package ociimage makes container images of one static Go program each, without a daemon or a registry.
//
// It knows nothing of layers that already exist: an image starts from nothing.
package ociimage
