// Package configfile reads the configuration files of an operator: the kinds of apiserver.config.k8s.io, and what they point
// to. It knows nothing of what they configure.
package configfile

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"sync"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
)

// MaxSize is far above any configuration, in bytes: 64 issuers with a CA bundle each.
const MaxSize = 4 << 20

// codecs decode every version that the library knows, and refuse unknown fields.
var codecs = sync.OnceValue(func() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	return serializer.NewCodecFactory(scheme, serializer.EnableStrict)
})

// Read returns the content of a file of at most MaxSize. The error names the file.
func Read(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > MaxSize {
		return nil, fmt.Errorf("%s: larger than %d bytes", file, MaxSize)
	}
	return os.ReadFile(file)
}

// Decode returns the one object of kind T in a text, YAML or JSON. An unknown field is an error, and so is what OneDocument
// refuses.
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

// OneDocument refuses YAML that the library's decoders would take for less than it is: they read the first document alone, and
// nothing as the defaults.
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
			return errors.New("it holds several YAML documents, of which one would be read")
		}
		begun = true
	}
	if !begun {
		return errors.New("the file is empty")
	}
	return nil
}
