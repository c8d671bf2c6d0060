// Go's own client with h2 as its only protocol: GET_URL POST_URL BODY [PROXY]; prints status, version and body of both
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

// Transport adds http/1.1 to a configuration of its own, so that the handshake is made here.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	to := address
	if len(os.Args) > 4 {
		to = os.Args[4]
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	if to != address {
		fmt.Fprintf(raw, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", address, address)
		answer, err := http.ReadResponse(bufio.NewReader(raw), nil)
		if err != nil || answer.StatusCode != 200 {
			return nil, fmt.Errorf("no tunnel: %v %v", answer, err)
		}
	}
	secure := tls.Client(raw, &tls.Config{ServerName: host, NextProtos: []string{"h2"}})
	return secure, secure.HandshakeContext(ctx)
}

func main() {
	client := http.Client{Transport: &http.Transport{DialTLSContext: dial, ForceAttemptHTTP2: true}}
	get, _ := http.NewRequest("GET", os.Args[1], nil)
	post, _ := http.NewRequest("POST", os.Args[2], io.MultiReader(strings.NewReader(os.Args[3]))) // of unknown length
	for _, request := range []*http.Request{get, post} {
		answer, err := client.Do(request)
		if err != nil {
			panic(err)
		}
		body, _ := io.ReadAll(answer.Body)
		fmt.Println(answer.StatusCode, answer.Proto, string(body))
	}
}
