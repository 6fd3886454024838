package apiserver

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/endpoints/request"

	"lanyard.dev/internal/apiserver/api"
)

func TestLongRunning(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		info request.RequestInfo
		want bool
	}{
		{request.RequestInfo{IsResourceRequest: true, Verb: "watch", Resource: "pods"}, true},
		{request.RequestInfo{IsResourceRequest: true, Verb: "get", Resource: "pods", Subresource: "log"}, true},
		{request.RequestInfo{IsResourceRequest: true, Verb: "create", Resource: "pods", Subresource: "exec"}, true},
		{request.RequestInfo{IsResourceRequest: true, Verb: "get", Resource: "pods", Subresource: "attach"}, true},
		{request.RequestInfo{IsResourceRequest: true, Verb: "create", Resource: "pods", Subresource: "portforward"}, true},
		{request.RequestInfo{IsResourceRequest: true, Verb: "get", Resource: "pods"}, false},
		{request.RequestInfo{IsResourceRequest: true, Verb: "update", Resource: "pods", Subresource: "status"}, false},
		{request.RequestInfo{IsResourceRequest: true, Verb: "create", Resource: "serviceaccounts", Subresource: "token"}, false},
		{request.RequestInfo{Verb: "get", Path: "/log"}, false},
	} {
		if got := longRunning(api.All().Sessions())(&http.Request{}, &test.info); got != test.want {
			t.Errorf("%+v: %v", test.info, got)
		}
	}
}

func TestSessionsEndWithTheServer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		resource, subresource, query string
		ends                         bool
	}{
		{"pods", "exec", "", true}, {"pods", "attach", "", true}, {"pods", "portforward", "", true},
		{"pods", "log", "?follow=true", true}, {"pods", "log", "?follow", true}, {"pods", "log", "?follow=false", false}, {"pods", "log", "", false}, {"pods", "", "", false}, {"things", "exec", "", false},
	} {
		stopping := make(stopSignal)
		h := endSessions(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(stopping)
			if test.ends {
				<-r.Context().Done()
			} else if r.Context().Err() != nil {
				t.Errorf("%s/%s%s was ended", test.resource, test.subresource, test.query)
			}
		}), api.All().Sessions(), stopping)
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/x"+test.query, nil)
		info := &request.RequestInfo{IsResourceRequest: true, Resource: test.resource, Subresource: test.subresource}
		h.ServeHTTP(httptest.NewRecorder(), r.WithContext(request.WithRequestInfo(r.Context(), info)))
	}
}
