//go:build !linux

package main

func namespaces() bool { return false }
