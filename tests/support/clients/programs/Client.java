import java.io.InputStream;
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;
import java.net.URL;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;

/** Both HTTP clients of the JDK: `java Client.java client|connection GET POST BODY`. */
class Client {
    public static void main(String[] args) throws Exception {
        if (args[0].equals("client")) {
            HttpClient client = HttpClient.newHttpClient();
            HttpRequest get = HttpRequest.newBuilder(URI.create(args[1])).build();
            System.out.println(client.send(get, BodyHandlers.ofString()).body());
            HttpRequest post = HttpRequest.newBuilder(URI.create(args[2]))
                .POST(HttpRequest.BodyPublishers.ofString(args[3])).build();
            System.out.println(client.send(post, BodyHandlers.ofString()).body());
        } else {
            print((HttpURLConnection) new URL(args[1]).openConnection());
            HttpURLConnection post = (HttpURLConnection) new URL(args[2]).openConnection();
            post.setDoOutput(true);
            try (OutputStream body = post.getOutputStream()) {
                body.write(args[3].getBytes(StandardCharsets.UTF_8));
            }
            print(post);
        }
    }

    private static void print(HttpURLConnection connection) throws Exception {
        try (InputStream answer = connection.getInputStream()) {
            System.out.println(new String(answer.readAllBytes(), StandardCharsets.UTF_8));
        }
    }
}
