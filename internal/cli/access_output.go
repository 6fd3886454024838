package cli

import (
	"fmt"
	"io"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"

	"lanyard.dev/internal/access"
)

// printAnswer prints value in the format of o. As a table, the notes go to standard error; value contains them too.
func (o *outputOptions) printAnswer(s streams, value any, notes []string, table func(w io.Writer, wide bool) error) error {
	return o.print(s.out, value, func(w io.Writer) error {
		if err := table(w, o.format == formatWide); err != nil {
			return err
		}
		for _, note := range notes {
			fmt.Fprintf(s.err, "note: %s\n", singleLine(note))
		}
		return nil
	})
}

func viaColumns(wide bool) []string {
	columns := []string{"SUBJECT", "BINDING", "ROLE", "SCOPE"}
	if wide {
		columns = append(columns, "RULES")
	}
	return columns
}

func viaCells(v *access.Via, wide bool) []string {
	cells := []string{subjectText(v.Subject), v.Binding.String(), v.Role.String(), scopeText(v.Namespace)}
	if wide {
		cells = append(cells, rulesText(v.Rules))
	}
	return cells
}

func subjectText(s rbacv1.Subject) string {
	if s.Namespace != "" {
		return s.Kind + "/" + s.Namespace + "/" + s.Name
	}
	return s.Kind + "/" + s.Name
}

func scopeText(namespace string) string {
	if namespace == "" {
		return "cluster"
	}
	return "namespace " + namespace
}

// rulesText returns the rules, each as in "get,list pods,deployments.apps".
func rulesText(rules []rbacv1.PolicyRule) string {
	var texts []string
	for _, r := range rules {
		text := strings.Join(r.Verbs, ",") + " " + strings.Join(append(resourceTexts(r.APIGroups, r.Resources), r.NonResourceURLs...), ",")
		if len(r.ResourceNames) > 0 {
			text += " named " + strings.Join(r.ResourceNames, ",")
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, "; ")
}

// resourceTexts returns every combination of a group and a resource, as RESOURCE.GROUP. If there are too many, it returns their
// numbers.
func resourceTexts(groups, resources []string) []string {
	const most = 100
	if len(groups)*len(resources) > most {
		return []string{fmt.Sprintf("%d resources of %d groups", len(resources), len(groups))}
	}
	var texts []string
	for _, group := range groups {
		for _, resource := range resources {
			if group == "" {
				texts = append(texts, resource)
				continue
			}
			name, sub, isSub := strings.Cut(resource, "/")
			text := name + "." + group
			if isSub {
				text += "/" + sub
			}
			texts = append(texts, text)
		}
	}
	return texts
}
