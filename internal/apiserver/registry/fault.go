package registry

import (
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// unreadableApply opens the library's error about a configuration that does not fit the kind's schema.
const unreadableApply = "failed to create typed patch object"

// tooLargeToSend is in the words of the gRPC client about a message over its own limit, which is above etcd's.
const tooLargeToSend = "larger than max"

// fault turns what the library answers as faults of the server, and logs with what the client sent, into the client's
// faults they are.
func fault(err error) error {
	if err == nil || apierrors.ReasonForError(err) != "" {
		return err
	}
	// etcd's client gives its errors a gRPC code. Of all it calls an invalid argument, only the size is in the hands of
	// whoever writes an object.
	var refusal interface {
		error
		Code() codes.Code
	}
	switch {
	case errors.As(err, &refusal) && refusal.Code() == codes.InvalidArgument:
		return apierrors.NewRequestEntityTooLargeError("the object is too large to be stored: " + refusal.Error())
	case status.Code(err) == codes.ResourceExhausted && strings.Contains(err.Error(), tooLargeToSend):
		return apierrors.NewRequestEntityTooLargeError("the object is too large to be sent to etcd")
	case strings.HasPrefix(err.Error(), unreadableApply):
		return apierrors.NewBadRequest(err.Error())
	}
	return err
}
