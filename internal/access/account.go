package access

import (
	"fmt"
	"strings"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
)

// AccountForms lists the spellings that ParseAccount reads, for errors and help.
const AccountForms = "NAMESPACE/NAME, sa:NAMESPACE/NAME, NAMESPACE:NAME or system:serviceaccount:NAMESPACE:NAME"

// accountPrefixes are written before NAMESPACE/NAME or NAMESPACE:NAME.
var accountPrefixes = [...]string{accountPrefix, "sa:", "serviceaccount:", "ServiceAccount/"}

// ParseAccount reads a service account in any spelling that is in use: NAMESPACE/NAME, that with "sa:" or
// "serviceaccount:" before it, kubectl's NAMESPACE:NAME, the user name system:serviceaccount:NAMESPACE:NAME, and
// ServiceAccount/NAMESPACE/NAME as the tables of lanyard access print it. Both parts are valid names.
func ParseAccount(text string) (namespace, name string, err error) {
	rest := text
	for _, prefix := range accountPrefixes {
		if after, found := strings.CutPrefix(text, prefix); found {
			rest = after
			break
		}
	}
	i := strings.IndexAny(rest, "/:")
	if i < 0 {
		return "", "", fmt.Errorf("service account %q: the namespace is missing; write %s", text, AccountForms)
	}
	namespace, name = rest[:i], rest[i+1:]
	if strings.ContainsAny(name, "/:") || namespace == "" || name == "" {
		return "", "", fmt.Errorf("service account %q: write %s", text, AccountForms)
	}
	if faults := validation.IsDNS1123Label(namespace); len(faults) > 0 {
		return "", "", fmt.Errorf("service account %q: namespace %q: %s", text, namespace, faults[0])
	}
	if faults := apivalidation.ValidateServiceAccountName(name, false); len(faults) > 0 {
		return "", "", fmt.Errorf("service account %q: name %q: %s", text, name, faults[0])
	}
	return namespace, name, nil
}
