package oidc

import (
	"errors"
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
)

// maxFile is far above any configuration: 64 issuers with a CA bundle each.
const maxFile = 4 << 20

// loader reads AuthenticationConfigurations, of every version that the library knows.
type loader struct {
	codecs   serializer.CodecFactory
	compiler authenticationcel.Compiler
	// own are the issuers of this server, which no other may pretend to be.
	own []string
}

func newLoader(own []string) *loader {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	return &loader{
		codecs:   serializer.NewCodecFactory(scheme, serializer.EnableStrict),
		compiler: authenticationcel.NewDefaultCompiler(), own: own,
	}
}

func read(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("read the authentication configuration: %w", err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("authentication configuration %s: larger than %d bytes", file, maxFile)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the authentication configuration: %w", err)
	}
	return data, nil
}

// load returns the configuration in data, or every fault at once. An unknown field is a fault.
func (l *loader) load(data []byte) (*apiserver.AuthenticationConfiguration, error) {
	if len(data) == 0 {
		return nil, errors.New("the file is empty")
	}
	obj, err := runtime.Decode(l.codecs.UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	config, ok := obj.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("it is a %T, not an AuthenticationConfiguration", obj)
	}
	if err := validation.ValidateAuthenticationConfiguration(l.compiler, config, l.own).ToAggregate(); err != nil {
		return nil, err
	}
	return config, nil
}
