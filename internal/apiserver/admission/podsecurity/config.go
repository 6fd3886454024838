package podsecurity

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	apiserverinstall "k8s.io/apiserver/pkg/apis/apiserver/install"
	podsecurityconfig "k8s.io/pod-security-admission/admission/api"
	"k8s.io/pod-security-admission/admission/api/load"
	"k8s.io/pod-security-admission/admission/api/validation"
)

// Name is the plugin's, as kube-apiserver's configuration calls it.
const Name = "PodSecurity"

// Configuration is what namespaces are held to that choose nothing, and who is exempt.
type Configuration = podsecurityconfig.PodSecurityConfiguration

// ReadConfiguration reads this plugin's part of an apiserver.config.k8s.io AdmissionConfiguration. Without a file namespaces
// without labels are held to nothing, as in Kubernetes. A file with something that nobody would heed is an error: another
// plugin, a second YAML document, settings twice or not at all.
func ReadConfiguration(file string) (*Configuration, error) {
	if file == "" {
		return load.LoadFromData(nil)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("admission configuration: %w", err)
	}
	config, err := parse(text, filepath.Dir(file))
	if err != nil {
		return nil, fmt.Errorf("admission configuration %s: %w", file, err)
	}
	return config, nil
}

// parse reads the text of an AdmissionConfiguration whose relative paths start at dir.
func parse(text []byte, dir string) (*Configuration, error) {
	if err := oneDocument(text); err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	apiserverinstall.Install(scheme)
	decoded, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), text)
	if err != nil {
		return nil, err
	}
	all, ok := decoded.(*apiserver.AdmissionConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected an AdmissionConfiguration, got %T", decoded)
	}
	for _, plugin := range all.Plugins {
		if plugin.Name != Name {
			return nil, fmt.Errorf("plugin %q cannot be configured here, only %s", plugin.Name, Name)
		}
	}
	if len(all.Plugins) != 1 {
		return nil, fmt.Errorf("plugin %s must be configured once, not %d times", Name, len(all.Plugins))
	}
	own, err := settings(all.Plugins[0], dir)
	if err != nil {
		return nil, err
	}
	config, err := load.LoadFromData(own)
	if err != nil {
		return nil, err
	}
	return config, validation.ValidatePodSecurityConfiguration(config).ToAggregate()
}

// settings are a plugin's own, given in place or as a file.
func settings(plugin apiserver.AdmissionPluginConfiguration, dir string) ([]byte, error) {
	var text []byte
	if plugin.Configuration != nil {
		text = plugin.Configuration.Raw
	}
	if (len(text) > 0) == (plugin.Path != "") {
		return nil, fmt.Errorf("plugin %s needs either configuration or path", plugin.Name)
	}
	if plugin.Path == "" {
		return text, nil
	}
	file := plugin.Path
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := oneDocument(text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return text, nil
}

// oneDocument refuses YAML that the decoders would take for less than it is: they read the first document alone, and nothing
// as the defaults.
func oneDocument(text []byte) error {
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
		return errors.New("it is empty")
	}
	return nil
}
