// Package configfile decodes the configuration files of an operator: the kinds of apiserver.config.k8s.io, and the files
// that these name. It does not know what the files configure.
//
// It is a package of its own, although it is short, because several parts of the server have such a file.
package configfile

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
)

// codecs decode every version that the library knows, and refuse unknown fields.
var codecs = sync.OnceValue(func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict)
})

// Decode returns the object of kind T in text, which is YAML or JSON with one document. An unknown field is an error.
func Decode[T runtime.Object](text []byte) (T, error) {
	var none T
	if err := OneDocument(text); err != nil {
		return none, err
	}
	decoded, err := runtime.Decode(codecs().UniversalDecoder(), text)
	if err != nil {
		return none, err
	}
	config, ok := decoded.(T)
	if !ok {
		return none, fmt.Errorf("it is a %T, not an %s", decoded, reflect.TypeFor[T]().Elem().Name())
	}
	return config, nil
}

// OneDocument returns an error if YAML text holds no document or more than one. The library's decoders read only the first
// of several documents, and read an empty text as the defaults.
func OneDocument(text []byte) error {
	begun, ended := false, false
	for line := range bytes.Lines(bytes.TrimPrefix(text, []byte("\ufeff"))) {
		for _, marker := range []string{"---", "..."} {
			if rest, found := bytes.CutPrefix(line, []byte(marker)); found {
				line, ended = rest, begun
			}
		}
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' || line[0] == '%' && !begun {
			continue
		}
		if ended {
			return errors.New("it has several YAML documents, and only the first would be read")
		}
		begun = true
	}
	if !begun {
		return errors.New("the file is empty")
	}
	return nil
}
