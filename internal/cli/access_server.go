package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"lanyard.dev/internal/access"
)

// serverWait bounds what is asked of an API server about one question, besides its policy.
const serverWait = 15 * time.Second

// server asks an API server what a policy does not hold: what it decides itself, who the caller is, and whether what a
// question names exists.
type server struct {
	client  kubernetes.Interface
	objects metadata.Interface
}

func newServer(config *rest.Config) (*server, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", config.Host, err)
	}
	return &server{client, objects}, nil
}

// isCaller reports whether the subject is the caller, in groups that the caller is in. The note names groups of the caller
// besides these, which the server lets count.
func (s *server) isCaller(ctx context.Context, subject *access.Subject) (is bool, note string) {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	review, err := s.client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil || subject.User == "" || review.Status.UserInfo.Username != subject.User {
		return false, ""
	}
	groups := review.Status.UserInfo.Groups
	if slices.ContainsFunc(subject.Groups, func(g string) bool { return !slices.Contains(groups, g) }) {
		return false, ""
	}
	more := slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return slices.Contains(subject.Groups, g) })
	if len(more) > 0 {
		note = "you are in these groups too, which count: " + strings.Join(more, ", ")
	}
	return true, note
}

// decide asks the server for its own decision, by the review that the caller may create, and adds to the notes. asked is
// false if there is none.
func (s *server) decide(ctx context.Context, q *access.Explanation) (status authorizationv1.SubjectAccessReviewStatus, asked bool) {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	resource, path := attributesOf(q.Verb, &q.Target)
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: q.Subject.User, Groups: q.Subject.Groups, ResourceAttributes: resource, NonResourceAttributes: path,
	}
	reviews := s.client.AuthorizationV1()
	review, err := reviews.SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	if err == nil {
		return review.Status, conclusive(review.Status)
	}
	if is, note := s.isCaller(ctx, &q.Subject); is {
		self := authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: resource, NonResourceAttributes: path}
		review, err := reviews.SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: self}, metav1.CreateOptions{})
		if err == nil {
			if note != "" {
				q.Notes = append(q.Notes, note)
			}
			return review.Status, conclusive(review.Status)
		}
	}
	if namespace := q.Target.Namespace; namespace != "" {
		local := &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: spec}
		if review, err := reviews.LocalSubjectAccessReviews(namespace).Create(ctx, local, metav1.CreateOptions{}); err == nil {
			return review.Status, conclusive(review.Status)
		}
	}
	return status, false
}

// conclusive reports whether a denial is more than an error on the way to a decision.
func conclusive(status authorizationv1.SubjectAccessReviewStatus) bool {
	return status.Allowed || status.EvaluationError == ""
}

func attributesOf(verb string, t *access.Target) (*authorizationv1.ResourceAttributes, *authorizationv1.NonResourceAttributes) {
	if t.Path != "" {
		return nil, &authorizationv1.NonResourceAttributes{Verb: verb, Path: t.Path}
	}
	return &authorizationv1.ResourceAttributes{
		Verb: verb, Group: t.APIGroup, Resource: t.Resource, Subresource: t.Subresource, Name: t.Name, Namespace: t.Namespace,
	}, nil
}

// rules asks what the caller may do in a namespace. The note is empty if the server names all of it.
func (s *server) rules(ctx context.Context, namespace string) (rules []rbacv1.PolicyRule, note string, err error) {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	ask := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
	review, err := s.client.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, ask, metav1.CreateOptions{})
	if err != nil {
		return nil, "", fmt.Errorf("ask what you may do in namespace %s: %w", namespace, err)
	}
	for _, r := range review.Status.ResourceRules {
		rules = append(rules, rbacv1.PolicyRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
	}
	for _, r := range review.Status.NonResourceRules {
		rules = append(rules, rbacv1.PolicyRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
	}
	if review.Status.Incomplete {
		note = "the API server says that the list may not be complete: " + review.Status.EvaluationError
	}
	return rules, note, nil
}

var (
	accounts   = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	nodes      = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
)

// subjectNotes says so if the subject is an account or a node that does not exist.
func (s *server) subjectNotes(ctx context.Context, subject *access.Subject) []string {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	if namespace, name, ok := subject.Account(); ok {
		return s.missing(ctx, accounts, namespace, name, "the service account "+namespace+"/"+name, true)
	}
	if name, ok := subject.Node(); ok {
		return s.missing(ctx, nodes, "", name, "the node "+name, true)
	}
	return nil
}

// targetNotes says so if the namespace or the object that a question names does not exist.
func (s *server) targetNotes(ctx context.Context, verb string, t *access.Target) []string {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	version, isNamespace := t.Version(), t.Resource == "namespaces" && t.APIGroup == ""
	if t.Namespace != "" && !isNamespace {
		if notes := s.missing(ctx, namespaces, "", t.Namespace, "the namespace "+t.Namespace, true); len(notes) > 0 {
			return notes
		}
	}
	if t.Name == "" || version == "" || verb == "create" && t.Subresource == "" {
		return nil
	}
	namespace := t.Namespace
	if isNamespace {
		namespace = ""
	}
	gvr := schema.GroupVersionResource{Group: t.APIGroup, Version: version, Resource: t.Resource}
	return s.missing(ctx, gvr, namespace, t.Name, fmt.Sprintf("%s %q", t.Resource, t.Name), false)
}

// missing says so if an object does not exist, as far as the caller may know, and what else could be meant.
func (s *server) missing(ctx context.Context, gvr schema.GroupVersionResource, namespace, name, what string, suggest bool) []string {
	client := s.objects.Resource(gvr).Namespace(namespace)
	if _, err := client.Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return nil
	}
	note := what + " does not exist"
	if !suggest {
		return []string{note}
	}
	if near, err := client.List(ctx, metav1.ListOptions{Limit: pageSize}); err == nil {
		var names []string
		for i := range near.Items {
			names = append(names, near.Items[i].Name)
		}
		if found := access.Nearest(name, names); found != "" {
			note += ": did you mean " + found + "?"
		}
	}
	return []string{note}
}

// holderNotes says which of the accounts that hold something do not exist.
func (s *server) holderNotes(ctx context.Context, grants []access.Via) []string {
	ctx, cancel := context.WithTimeout(ctx, serverWait)
	defer cancel()
	held := map[string]bool{}
	for i := range grants {
		if sub := &grants[i].Subject; sub.Kind == rbacv1.ServiceAccountKind {
			held[sub.Namespace+"/"+sub.Name] = true
		}
	}
	if len(held) == 0 {
		return nil
	}
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := s.objects.Resource(accounts).List(ctx, options)
		if err != nil {
			return nil // the caller may not know
		}
		for i := range page.Items {
			delete(held, page.Items[i].Namespace+"/"+page.Items[i].Name)
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return missingHolders(held)
		}
	}
}

func missingHolders(held map[string]bool) []string {
	const most = 5
	if len(held) == 0 {
		return nil
	}
	var names []string
	for name := range held {
		names = append(names, name)
	}
	slices.Sort(names)
	if len(names) > most {
		names = append(names[:most:most], fmt.Sprintf("and %d more", len(names)-most))
	}
	return []string{"these service accounts do not exist: " + strings.Join(names, ", ")}
}
