package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"

	identity "lanyard.dev/apis/identity/v1alpha1"
	"lanyard.dev/internal/account"
)

// formatName prints RESOURCE/NAME, as kubectl get -o name.
const formatName = "name"

// credentialFormats are the formats of lists of credentials.
var credentialFormats = []string{formatTable, formatWide, formatJSON, formatYAML, formatName}

// credentialList is the result of a list, in the form of kubectl get -o json.
type credentialList struct {
	metav1.TypeMeta `json:",inline"`
	Items           []runtime.Object `json:"items"`
}

// printCredentials prints credentials in the format of o.
func printCredentials(o *outputOptions, w io.Writer, all []credential, now time.Time) error {
	list := credentialList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "List"}, Items: []runtime.Object{}}
	for _, c := range all {
		object := c.object().DeepCopyObject()
		object.GetObjectKind().SetGroupVersionKind(identity.SchemeGroupVersion.WithKind(kindNames[c.kind()]))
		list.Items = append(list.Items, object)
	}
	return o.print(w, list, func(w io.Writer) error {
		if o.format == formatName {
			return printNames(w, all)
		}
		return printCredentialTables(w, all, o.format == formatWide, now)
	})
}

var kindNames = map[string]string{"token": "IssuedToken", "certificate": "IssuedCertificate"}

func printNames(w io.Writer, all []credential) error {
	var text strings.Builder
	for _, c := range all {
		fmt.Fprintf(&text, "%s.%s/%s\n", c.resource(), identity.GroupName, c.meta().Name)
	}
	return write(w, text.String())
}

// printCredentialTables prints a table of the tokens and one of the certificates.
func printCredentialTables(w io.Writer, all []credential, wide bool, now time.Time) error {
	tables := map[string][]credential{}
	for _, c := range all {
		tables[c.kind()] = append(tables[c.kind()], c)
	}
	before := ""
	for _, kind := range []string{"token", "certificate"} {
		rows := tables[kind]
		if len(rows) == 0 {
			continue
		}
		columns, cells := credentialColumns(kind, wide, now)
		if err := printTable(w, before, columns, len(rows), func(i int) []string { return cells(rows[i]) }); err != nil {
			return err
		}
		before = "\n"
	}
	return nil
}

// credentialColumns returns the columns for one kind, and the function that returns the cells of a row.
func credentialColumns(kind string, wide bool, now time.Time) (columns []string, cells func(credential) []string) {
	columns = []string{"ID", "ACCOUNT", "BOUND TO", "MINTED BY", "ISSUED", "EXPIRES", "LAST USED"}
	more := []string{"FROM", "PHASE", "AUDIENCES", "NODE", "KEY", "MINTED WITH", "MINTED FROM"}
	second, rest := tokenBoundTo, tokenDetails
	if kind == "certificate" {
		columns[1], columns[2] = "USER", "SIGNER"
		more = []string{"FROM", "PHASE", "GROUPS", "REQUEST", "MINTED WITH", "MINTED FROM"}
		second, rest = func(c credential) string { return c.certificate.Spec.SignerName }, certificateDetails
	}
	if wide {
		columns = append(columns, more...)
	}
	return columns, func(c credential) []string {
		used, from := "never", "-"
		if use := c.lastUsed(); use != nil {
			used, from = ago(use.Time.Time, now), dash(use.Address)
		}
		row := []string{
			c.meta().Name, c.holder(), dash(second(c)), dash(shortUser(c.minter().Username)),
			ago(c.meta().CreationTimestamp.Time, now), "in " + duration.HumanDuration(c.expires().Sub(now)), used,
		}
		if wide {
			row = append(append(row, from), rest(c)...)
			row = append(row, dash(c.minter().CredentialID), dash(c.minter().Address))
		}
		return row
	}
}

func tokenBoundTo(c credential) string {
	bound := c.token.Spec.BoundObject
	if bound == nil {
		return ""
	}
	return strings.ToLower(bound.Kind) + "/" + bound.Name
}

func tokenDetails(c credential) []string {
	node := ""
	if c.token.Spec.Node != nil {
		node = c.token.Spec.Node.Name
	}
	return []string{dash(string(c.token.Status.Phase)), dash(strings.Join(c.token.Spec.Audiences, ",")), dash(node), dash(c.token.Spec.KeyID)}
}

func certificateDetails(c credential) []string {
	spec := &c.certificate.Spec
	return []string{dash(string(c.certificate.Status.Phase)), dash(strings.Join(spec.Groups, ",")), dash(spec.Request)}
}

func ago(then, now time.Time) string { return duration.HumanDuration(now.Sub(then)) + " ago" }

func dash(text string) string { return cmp.Or(text, "-") }

// shortUser returns the short form of a service account's user name, and other names unchanged.
func shortUser(user string) string {
	if !strings.HasPrefix(user, account.UserPrefix) {
		return user
	}
	name, err := account.Parse(user)
	if err != nil {
		return user
	}
	return "sa:" + name.String()
}
