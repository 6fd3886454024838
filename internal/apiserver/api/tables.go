package api

import (
	"net/url"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// All returns the tables of every group that the server serves.
func All() Tables {
	return Tables{core(), authentication(), authorization(), certificates(), coordination(), events(), policy(), rbac(), identity()}
}

// entry is a resource with its group and version.
type entry struct {
	Resource
	schema.GroupVersion
}

func (e entry) groupResource() schema.GroupResource {
	return schema.GroupResource{Group: e.Group, Resource: e.Name}
}

// stores reports whether the entry has a store of its own. SameObjects uses the store of another entry.
func (e entry) stores() bool {
	_, shared := e.Stored.(interface{ of() schema.GroupResource })
	return e.Stored != nil && !shared
}

// GroupVersion returns the group and version of v.
func (g Group) GroupVersion(v Version) schema.GroupVersion {
	return schema.GroupVersion{Group: g.Name, Version: v.Name}
}

// HasProtobuf reports whether the kinds of the group have a protobuf form. Those of this project have none.
func (g Group) HasProtobuf() bool {
	for _, v := range g.Versions {
		for _, r := range v.Resources {
			if _, ok := r.Kind.(interface{ Marshal() ([]byte, error) }); !ok {
				return false
			}
		}
	}
	return true
}

func (t Tables) entries() []entry {
	var all []entry
	for _, g := range t {
		for _, v := range g.Versions {
			for _, r := range v.Resources {
				all = append(all, entry{r, g.GroupVersion(v)})
			}
		}
	}
	return all
}

// schemeVersions returns what a scheme registers for each version.
func (t Tables) schemeVersions() []schemeVersion {
	var all []schemeVersion
	for _, g := range t {
		for _, v := range g.Versions {
			made := schemeVersion{GroupVersion: g.GroupVersion(v), types: v.Types}
			for _, r := range v.Resources {
				t.register(&made, r)
			}
			all = append(all, made)
		}
	}
	return all
}

func (t Tables) register(v *schemeVersion, r Resource) {
	v.types = append(v.types, r.Kind)
	if r.List != nil {
		v.types = append(v.types, r.List)
	}
	if r.Stored != nil {
		internal, add := r.Stored.decoding()
		v.internal, v.add = append(v.internal, internal...), append(v.add, add...)
		labels := r.Stored.labels(r, t)
		if len(labels) > len(metaLabels) {
			v.add = append(v.add, selectBy(v.WithKind(kindOf(r.Kind)), labels))
		}
	}
	if r.Computed != nil {
		v.add = append(v.add, selectBy(v.WithKind(kindOf(r.Kind)), themselves(metaLabels, r.Computed.selectable())))
	}
	for _, p := range r.Subresources {
		if p.Options != nil {
			v.types = append(v.types, p.Options.kind)
			v.add = append(v.add, p.Options.read)
		}
	}
}

// NewScheme returns the scheme that the server decodes, defaults, converts and stores with.
func (t Tables) NewScheme() *runtime.Scheme { return newScheme(t.schemeVersions()) }

// NewPublishedScheme returns the scheme of the versions that clients see. OpenAPI names are made from it.
func (t Tables) NewPublishedScheme() *runtime.Scheme {
	return newPublishedScheme(t.schemeVersions())
}

// Mirrored returns the resources that have a feed, whose listeners learn of a change before the write returns.
func (t Tables) Mirrored() []schema.GroupResource {
	var all []schema.GroupResource
	for _, e := range t.entries() {
		if e.Mirrored {
			all = append(all, e.groupResource())
		}
	}
	return all
}

// Prefixes returns the directory in etcd of each resource that is not stored under its own name.
func (t Tables) Prefixes() map[schema.GroupResource]string {
	all := map[schema.GroupResource]string{}
	for _, e := range t.entries() {
		if e.Prefix != "" {
			all[e.groupResource()] = e.Prefix
		}
	}
	return all
}

// Shared returns the resources of other groups that serve the objects of a resource, by that resource.
func (t Tables) Shared() map[schema.GroupResource][]schema.GroupResource {
	all := map[schema.GroupResource][]schema.GroupResource{}
	for _, e := range t.entries() {
		shared, ok := e.Stored.(interface{ of() schema.GroupResource })
		if ok && shared.of().Group != e.Group {
			all[shared.of()] = append(all[shared.of()], e.groupResource())
		}
	}
	return all
}

// Sessions returns the names of the subresources that connect a client to a node.
func (t Tables) Sessions() []string {
	var names []string
	for _, e := range t.entries() {
		for _, sub := range e.Subresources {
			if sub.Connect != nil {
				names = append(names, sub.Name)
			}
		}
	}
	return names
}

// Unstored returns a function that reports whether the bodies of requests for a resource or a subresource are not stored:
// reviews, token requests, options of sessions, computed resources, and the subresources whose field Unstored is true.
func (t Tables) Unstored() func(group, resource, subresource string) bool {
	type target struct{ group, resource, subresource string }
	unstored := map[target]bool{}
	for _, e := range t.entries() {
		unstored[target{e.Group, e.Name, ""}] = e.Ephemeral != nil || e.Computed != nil
		for _, sub := range e.Subresources {
			unstored[target{e.Group, e.Name, sub.Name}] = sub.Ephemeral != nil || sub.Connect != nil || sub.Unstored
		}
	}
	return func(group, resource, subresource string) bool { return unstored[target{group, resource, subresource}] }
}

// Credentials returns a function that reports whether the bodies of requests for a resource or a subresource contain tokens
// or secret values. It ignores the group, so it also reports true for a resource of the same name that is not served.
func (t Tables) Credentials() func(resource, subresource string) bool {
	type target struct{ resource, subresource string }
	resources, subresources := map[string]bool{}, map[target]bool{}
	for _, e := range t.entries() {
		if e.Credentials {
			resources[e.Name] = true
		}
		for _, sub := range e.Subresources {
			if sub.Credentials {
				subresources[target{e.Name, sub.Name}] = true
			}
		}
	}
	return func(resource, subresource string) bool {
		return resources[resource] || subresources[target{resource, subresource}]
	}
}

// parameters declares the options of requests to a subresource and how they are read from the query of a URL.
func parameters[T any, P interface {
	*T
	runtime.Object
}](read func(*url.Values, *T) error) *Options {
	return &Options{kind: P(new(T)), read: readQueryWith(read)}
}
