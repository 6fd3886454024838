// Package rbactest answers authorization requests the slow, obvious way, so
// that tests can hold the real index against it: every binding and every rule
// is looked at for every request, on the API objects as they are. It shares no
// code with package rbac beyond the form of requests, and knows nothing of
// speed, order or reasons.
package rbactest
