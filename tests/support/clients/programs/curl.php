<?php // PHP's curl extension: GET POST BODY
[, $get, $post, $body] = $argv;
foreach ([[$get, []], [$post, [CURLOPT_POSTFIELDS => $body]]] as [$url, $options]) {
    $curl = curl_init($url);
    curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true] + $options);
    echo curl_exec($curl), curl_error($curl), "\n";
}
