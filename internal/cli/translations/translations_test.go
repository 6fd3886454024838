package translations_test

import (
	"testing"

	"k8s.io/kubectl/pkg/cmd/options"
	"k8s.io/kubectl/pkg/util/i18n"

	"lanyard.dev/internal/cli/translations"
)

// TestTranslationsAreNotLoaded fails if a package of kubectl translates a text before this package is initialized.
func TestTranslationsAreNotLoaded(t *testing.T) {
	t.Parallel()
	if options.NewCmdOptions(nil).Example == "" {
		t.Error("the test does not contain package options, which translates a text when it is initialized")
	}
	if translations.ErrLate != nil {
		t.Error(translations.ErrLate)
	}
	const text = "Print the list of flags inherited by all commands"
	if got := i18n.T(text); got != text {
		t.Errorf("without translations, %q is %q", text, got)
	}
}

func TestMayRunKubectl(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args []string
		want bool
	}{
		{[]string{"lanyard"}, false}, {[]string{"lanyard", "exec", "--", "true"}, false},
		{[]string{"lanyard", "kubectl", "get", "pods"}, true}, {[]string{"lanyard", "help", "kubectl"}, true},
	} {
		if got := translations.MayRunKubectl(test.args); got != test.want {
			t.Errorf("%q: %v", test.args, got)
		}
	}
}
