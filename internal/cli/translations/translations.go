// Package translations makes kubectl load its translations only in a process that runs kubectl.
//
// Packages of kubectl translate texts while they initialize their variables, and the first text loads all translations. That
// takes 14 ms and 4 MiB, nearly half of what every command of lanyard needs before it starts. A program may replace the
// function that loads the translations, but only before the first text.
//
// This must be a package of its own. Go initializes a package as soon as the packages that it imports are initialized, and this
// one imports nothing of kubectl but i18n, so it is initialized before the packages that translate. Package cli imports those
// packages itself and is initialized after them.
package translations

import (
	"os"
	"slices"

	"k8s.io/kubectl/pkg/util/i18n"
)

// errLate is not nil if the translations were loaded before this package was initialized. Commands work then too, but start
// more slowly.
var errLate = i18n.SetLoadTranslationsFunc(func() error {
	if !mayRunKubectl(os.Args) {
		return nil // Texts remain in English, as in the source.
	}
	return i18n.LoadTranslations("kubectl", nil)
})

// mayRunKubectl reports whether the command may be `lanyard kubectl` or `lanyard help kubectl`.
func mayRunKubectl(args []string) bool { return slices.Contains(args, "kubectl") }
