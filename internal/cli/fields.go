package cli

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// fieldFlags maps the options of a library to flags: the field path of an option to the name of its flag, or to "" if it has
// none. The library's Validate reports faults by field path; users know the options by flag.
type fieldFlags map[string]string

// quotedField is a field path within the text of a fault.
var quotedField = regexp.MustCompile("`[^`]+`")

// errorOf returns an error with one line for each fault, or nil if there is none.
func (f fieldFlags) errorOf(faults field.ErrorList) error {
	var all []error
	for _, fault := range faults {
		all = append(all, errors.New(f.text(fault)))
	}
	return errors.Join(all...)
}

// text returns the text of a fault with flags in place of field paths.
//
// A detail that quotes the field of its own fault is a whole sentence. Other details follow the flag and its value.
func (f fieldFlags) text(fault *field.Error) string {
	detail := quotedField.ReplaceAllStringFunc(fault.Detail, func(quoted string) string { return f.flag(strings.Trim(quoted, "`")) })
	flag, value := f.flag(fault.Field), fmt.Sprint(fault.BadValue)
	_, key, isElement := strings.Cut(fault.Field, "[")
	key = strings.TrimSuffix(key, "]")
	switch {
	case strings.Contains(fault.Detail, "`"+fault.Field+"`"):
		return detail
	case fault.Type == field.ErrorTypeRequired && detail == "":
		return flag + " is required"
	case fault.Type == field.ErrorTypeRequired:
		return flag + " is required: " + detail
	case isElement && !isIndex(key):
		return fmt.Sprintf("%s %s=%s: %s", flag, key, value, detail)
	case reflect.ValueOf(fault.BadValue).Kind() == reflect.String:
		return fmt.Sprintf("%s %q: %s", flag, value, detail)
	}
	return fmt.Sprintf("%s %s: %s", flag, value, detail)
}

// flag returns the flag of a field, or of the list or map that the field is an element of. A field without a flag keeps its
// path.
func (f fieldFlags) flag(path string) string {
	option, _, _ := strings.Cut(path, "[")
	if name := f[option]; name != "" {
		return "--" + name
	}
	return path
}

// isIndex reports whether the key of an element is a position in a list.
func isIndex(key string) bool { return key != "" && strings.Trim(key, "0123456789") == "" }
