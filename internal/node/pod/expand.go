package pod

import "strings"

// expand replaces each $(NAME) that lookup knows. $$ stands for $, and what names nothing known stays as it is, as
// Kubernetes defines for env, command and args.
func expand(in string, lookup func(name string) (string, bool)) string {
	var out strings.Builder
	for {
		at := strings.IndexByte(in, '$')
		if at < 0 || at+1 == len(in) {
			out.WriteString(in)
			return out.String()
		}
		out.WriteString(in[:at])
		text, length := replacement(in[at:], lookup)
		out.WriteString(text)
		in = in[at+length:]
	}
}

// replacement returns what the start of in, a $ and more, becomes, and how many bytes of in that takes.
func replacement(in string, lookup func(string) (string, bool)) (text string, length int) {
	if in[1] == '$' {
		return "$", 2
	}
	end := strings.IndexByte(in, ')')
	if in[1] != '(' || end < 0 {
		return in[:2], 2
	}
	if value, ok := lookup(in[2:end]); ok {
		return value, end + 1
	}
	return in[:end+1], end + 1
}

// expandAll expands each of the words; nil stays nil.
func expandAll(words []string, lookup func(string) (string, bool)) []string {
	if words == nil {
		return nil
	}
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = expand(word, lookup)
	}
	return out
}
