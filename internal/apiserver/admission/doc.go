// Package admission holds what happens to an object on its way in, one package a plugin, in the order that New says.
package admission
