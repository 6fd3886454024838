package podsecurity

import (
	"fmt"
	"path/filepath"

	"k8s.io/apiserver/pkg/apis/apiserver"
	podsecurityconfig "k8s.io/pod-security-admission/admission/api"
	"k8s.io/pod-security-admission/admission/api/load"
	"k8s.io/pod-security-admission/admission/api/validation"

	"lanyard.dev/internal/apiserver/configfile"
	"lanyard.dev/internal/files"
)

// Name is the name of the plugin in kube-apiserver's configuration.
const Name = "PodSecurity"

// Configuration holds the standard of namespaces that choose none, and the exemptions.
type Configuration = podsecurityconfig.PodSecurityConfiguration

// ReadConfiguration reads this plugin's part of an apiserver.config.k8s.io AdmissionConfiguration. Without a file, no
// standard applies to namespaces without labels, as in Kubernetes. Content that would have no effect is an error:
// another plugin, a second YAML document, settings that are missing or repeated.
func ReadConfiguration(file string) (*Configuration, error) {
	if file == "" {
		return load.LoadFromData(nil)
	}
	text, err := files.Read(file, files.MaxConfig)
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
	all, err := configfile.Decode[*apiserver.AdmissionConfiguration](text)
	if err != nil {
		return nil, err
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

// settings returns the settings of a plugin, which are given in place or as a file.
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
	text, err := files.Read(file, files.MaxConfig)
	if err != nil {
		return nil, err
	}
	if err := configfile.OneDocument(text); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return text, nil
}
