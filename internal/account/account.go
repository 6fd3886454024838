// Package account reads and writes the names of service accounts, in every spelling that people use.
//
// It knows neither accounts nor tokens: a name that it reads may be that of no account.
package account

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// UserPrefix begins the user name of every service account.
const UserPrefix = "system:serviceaccount:"

// spellings is what an error tells a reader to write.
const spellings = "NAMESPACE/NAME, sa:NAMESPACE/NAME or system:serviceaccount:NAMESPACE:NAME"

// maxText bounds a spelling: the longest is UserPrefix with a namespace of 63 and a name of 253 characters.
const maxText = 512

// Name is the name of a service account. Namespace is empty where the text named none.
type Name struct{ Namespace, Name string }

// String returns NAMESPACE/NAME, or the name alone.
func (n Name) String() string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Namespace + "/" + n.Name
}

// User returns the user name that the API server gives to the account. The name must have a namespace.
func (n Name) User() string { return UserPrefix + n.Namespace + ":" + n.Name }

// Parse reads NAMESPACE/NAME, sa:NAMESPACE/NAME, serviceaccount:NAMESPACE/NAME, system:serviceaccount:NAMESPACE:NAME, or
// NAMESPACE:NAME, which kubectl uses. A name by itself is read too; its Namespace is empty. Both parts are valid names of
// objects when err is nil.
func Parse(text string) (Name, error) {
	if len(text) > maxText {
		return Name{}, fmt.Errorf("a service account's name has at most %d characters, not %d: write %s", maxText, len(text), spellings)
	}
	n, ok := split(text)
	if !ok {
		return Name{}, fmt.Errorf("%.100q is not the name of a service account: write %s", text, spellings)
	}
	if err := n.validate(); err != nil {
		return Name{}, err
	}
	return n, nil
}

// split tells the parts of a spelling apart. An empty part, or one with a separator in it, is no name.
func split(text string) (n Name, ok bool) {
	switch user, isUser := strings.CutPrefix(text, UserPrefix); {
	case isUser:
		n.Namespace, n.Name, ok = strings.Cut(user, ":")
	case strings.Contains(text, "/"):
		rest, isShort := strings.CutPrefix(text, "sa:")
		if !isShort {
			rest = strings.TrimPrefix(text, "serviceaccount:")
		}
		n.Namespace, n.Name, ok = strings.Cut(rest, "/")
	case strings.HasPrefix(text, "sa:"), strings.HasPrefix(text, "serviceaccount:"):
		return Name{}, false // a kind without a namespace, not the namespace "sa"
	case strings.Contains(text, ":"):
		n.Namespace, n.Name, ok = strings.Cut(text, ":")
	default:
		return Name{Name: text}, text != ""
	}
	return n, ok && n.Namespace != "" && n.Name != "" && !strings.ContainsAny(n.Namespace+n.Name, "/:")
}

func (n Name) validate() error {
	var errs []error
	if n.Namespace != "" {
		errs = append(errs, faults("namespace", n.Namespace, validation.IsDNS1123Label(n.Namespace)))
	}
	errs = append(errs, faults("service account", n.Name, validation.IsDNS1123Subdomain(n.Name)))
	return errors.Join(errs...)
}

func faults(kind, name string, found []string) error {
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("%.100q is not the name of a %s: %s", name, kind, found[0])
}
