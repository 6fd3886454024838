// Package translations lets kubectl load its translations only in a process that runs kubectl.
//
// Packages of kubectl translate texts while they initialize their variables, and the first text loads all translations: 14 ms
// and 4 MiB, nearly half of what every command of lanyard spends before its first line. Kubectl lets a program replace what
// loads them, if the program does so before the first text. So this is a package of its own, and imports nothing else of
// kubectl: Go initializes it as soon as the package i18n is initialized, which is before those that translate.
package translations

import (
	"os"
	"slices"

	"k8s.io/kubectl/pkg/util/i18n"
)

// errLate is not nil if translations were loaded before this package could prevent it. Then commands only start slower.
var errLate = i18n.SetLoadTranslationsFunc(func() error {
	if !mayRunKubectl(os.Args) {
		return nil // texts stay as they are in the source: in English
	}
	return i18n.LoadTranslations("kubectl", nil)
})

// mayRunKubectl finds `lanyard kubectl` and `lanyard help kubectl`.
func mayRunKubectl(args []string) bool { return slices.Contains(args, "kubectl") }
