package podsecurity

import (
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

// ReadConfiguration reads this plugin's part of an apiserver.config.k8s.io AdmissionConfiguration. Without a file, or
// without that part, namespaces without labels are held to nothing, as in Kubernetes. A file that configures another plugin is an error: nothing here would do what it says.
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
	var own []byte
	seen := false
	for _, plugin := range all.Plugins {
		switch {
		case plugin.Name != Name:
			return nil, fmt.Errorf("plugin %q cannot be configured here, only %s", plugin.Name, Name)
		case seen:
			return nil, fmt.Errorf("plugin %s is configured twice", Name)
		}
		seen = true
		if own, err = settings(plugin, dir); err != nil {
			return nil, err
		}
	}
	config, err := load.LoadFromData(own)
	if err != nil {
		return nil, err
	}
	return config, validation.ValidatePodSecurityConfiguration(config).ToAggregate()
}

// settings are a plugin's own, given in place or as a file.
func settings(plugin apiserver.AdmissionPluginConfiguration, dir string) ([]byte, error) {
	switch {
	case plugin.Configuration != nil:
		return plugin.Configuration.Raw, nil
	case plugin.Path == "":
		return nil, nil
	case filepath.IsAbs(plugin.Path):
		return os.ReadFile(plugin.Path)
	}
	return os.ReadFile(filepath.Join(dir, plugin.Path))
}
