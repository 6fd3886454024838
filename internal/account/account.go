// Package account parses and formats the names of service accounts, in every form that Kubernetes and its users write.
//
// It does not know whether an account exists.
package account

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// UserPrefix is the prefix of the user name of every service account.
const UserPrefix = "system:serviceaccount:"

// spellings are the forms that error texts recommend.
const spellings = "NAMESPACE/NAME, sa:NAMESPACE/NAME or system:serviceaccount:NAMESPACE:NAME"

// maxText is the limit for a text to parse, in bytes. The longest valid one is UserPrefix with a namespace of 63 and a name
// of 253 characters.
const maxText = 512

// Name is the name of a service account. Namespace is empty if the parsed text had none.
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

// Parse parses NAMESPACE/NAME, sa:NAMESPACE/NAME, serviceaccount:NAMESPACE/NAME, system:serviceaccount:NAMESPACE:NAME,
// NAMESPACE:NAME, which kubectl uses, and NAME alone. If err is nil, both parts are valid names of objects.
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

// split splits a text into namespace and name. ok is false if a part is empty or contains a separator.
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
