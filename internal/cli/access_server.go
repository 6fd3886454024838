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

// serverTimeout bounds the requests for one answer, besides those that read the policy.
const serverTimeout = 15 * time.Second

// server requests from an API server what the policy does not contain: its own decisions, the identity of the caller, and whether
// accounts, namespaces and objects exist.
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

// isCaller reports whether the subject is the caller and all groups of the subject are groups of the caller. The note names
// further groups of the caller, which affect the server's answers.
func (s *server) isCaller(ctx context.Context, subject *access.Subject) (is bool, note string) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
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
		note = "the answer also takes these groups of yours into account: " + strings.Join(more, ", ")
	}
	return true, note
}

// decide requests the server's own decision with the kind of review that the caller may create. It may add notes to q. decided
// is false if there is no decision.
func (s *server) decide(ctx context.Context, q *access.Explanation) (status authorizationv1.SubjectAccessReviewStatus, decided bool) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	resource, path := attributesOf(q.Verb, &q.Target)
	spec := authorizationv1.SubjectAccessReviewSpec{
		User: q.Subject.User, Groups: q.Subject.Groups, ResourceAttributes: resource, NonResourceAttributes: path,
	}
	reviews := s.client.AuthorizationV1()
	review, err := reviews.SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: spec}, metav1.CreateOptions{})
	if err == nil {
		return review.Status, isDecision(review.Status)
	}
	if is, note := s.isCaller(ctx, &q.Subject); is {
		self := authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: resource, NonResourceAttributes: path}
		review, err := reviews.SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{Spec: self}, metav1.CreateOptions{})
		if err == nil {
			if note != "" {
				q.Notes = append(q.Notes, note)
			}
			return review.Status, isDecision(review.Status)
		}
	}
	if namespace := q.Target.Namespace; namespace != "" {
		local := &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: spec}
		if review, err := reviews.LocalSubjectAccessReviews(namespace).Create(ctx, local, metav1.CreateOptions{}); err == nil {
			return review.Status, isDecision(review.Status)
		}
	}
	return status, false
}

// isDecision reports whether the status is a decision. A denial with an evaluation error is not.
func isDecision(status authorizationv1.SubjectAccessReviewStatus) bool {
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

// rules returns what the caller may do in a namespace. The note is not empty if the list may be incomplete.
func (s *server) rules(ctx context.Context, namespace string) (rules []rbacv1.PolicyRule, note string, err error) {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	ask := &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace}}
	review, err := s.client.AuthorizationV1().SelfSubjectRulesReviews().Create(ctx, ask, metav1.CreateOptions{})
	if err != nil {
		return nil, "", fmt.Errorf("request your permissions in namespace %s: %w", namespace, err)
	}
	for _, r := range review.Status.ResourceRules {
		rules = append(rules, rbacv1.PolicyRule{Verbs: r.Verbs, APIGroups: r.APIGroups, Resources: r.Resources, ResourceNames: r.ResourceNames})
	}
	for _, r := range review.Status.NonResourceRules {
		rules = append(rules, rbacv1.PolicyRule{Verbs: r.Verbs, NonResourceURLs: r.NonResourceURLs})
	}
	if review.Status.Incomplete {
		note = "the API server reports that the list may be incomplete: " + review.Status.EvaluationError
	}
	return rules, note, nil
}

var (
	accounts   = schema.GroupVersionResource{Version: "v1", Resource: "serviceaccounts"}
	namespaces = schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}
	nodes      = schema.GroupVersionResource{Version: "v1", Resource: "nodes"}
)

// subjectNotes returns a note if the subject is a service account or a node that does not exist.
func (s *server) subjectNotes(ctx context.Context, subject *access.Subject) []string {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
	defer cancel()
	if namespace, name, ok := subject.Account(); ok {
		return s.missing(ctx, accounts, namespace, name, "the service account "+namespace+"/"+name, true)
	}
	if name, ok := subject.Node(); ok {
		return s.missing(ctx, nodes, "", name, "the node "+name, true)
	}
	return nil
}

// targetNotes returns a note if the namespace or the object of the request does not exist.
func (s *server) targetNotes(ctx context.Context, verb string, t *access.Target) []string {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
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

// missing returns a note if an object does not exist and the caller may know that. With suggest, the note suggests a similar name.
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

// holderNotes returns a note with the service accounts in grants that do not exist.
func (s *server) holderNotes(ctx context.Context, grants []access.Via) []string {
	ctx, cancel := context.WithTimeout(ctx, serverTimeout)
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
			return nil // The caller may lack the permission.
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
