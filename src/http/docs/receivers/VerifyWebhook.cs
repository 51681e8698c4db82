using System;
using System.Linq;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

/// <summary>
/// Verify what Lutine sends. .NET 6 or later, nothing to install.
///
/// Every method takes the body as the bytes that arrived. Verify first, parse afterwards: a body that was parsed and
/// written again is another body.
/// </summary>
public static class VerifyWebhook
{
    private const long ToleranceSeconds = 300;

    /// <summary>The 32 bytes behind `whsec_`, which every signature with a shared secret is made with.</summary>
    public static byte[] KeyOf(string secret) =>
        Convert.FromBase64String(secret.StartsWith("whsec_", StringComparison.Ordinal) ? secret[6..] : secret);

    private static bool IsEqual(string given, string expected) =>
        CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(given), Encoding.UTF8.GetBytes(expected));

    /// <summary>Standard Webhooks: the headers webhook-id, webhook-timestamp and webhook-signature.</summary>
    public static bool IsStandard(string secret, string id, string timestamp, string signatures, byte[] body, DateTimeOffset now)
    {
        if (!long.TryParse(timestamp, out var seconds) || Math.Abs(now.ToUnixTimeSeconds() - seconds) > ToleranceSeconds)
        {
            return false;
        }
        var signed = Encoding.UTF8.GetBytes($"{id}.{timestamp}.").Concat(body).ToArray();
        var expected = Convert.ToBase64String(HMACSHA256.HashData(KeyOf(secret), signed));
        // During a rotation there are two signatures; one that matches is enough.
        return signatures.Split(' ').Any(signature =>
            signature.StartsWith("v1,", StringComparison.Ordinal) && IsEqual(signature[3..], expected));
    }

    /// <summary>The header X-Signature of the profile `envelope`: sha256={hex} over the body.</summary>
    public static bool IsHeaderHmac(string secret, string signature, byte[] body) =>
        IsEqual(signature, "sha256=" + Convert.ToHexString(HMACSHA256.HashData(KeyOf(secret), body)).ToLowerInvariant());

    /// <summary>The profile `signed-envelope` with a shared secret; the payload that was signed, or null.</summary>
    public static JsonDocument? SignedEnvelope(string secret, byte[] body)
    {
        using var message = JsonDocument.Parse(body);
        var text = message.RootElement.GetProperty("payloadAsString").GetString()!;
        var signature = message.RootElement.GetProperty("signature").GetString()!;
        var expected = Convert.ToBase64String(HMACSHA256.HashData(KeyOf(secret), Encoding.UTF8.GetBytes(text)));
        // The text is what was signed; `payload` beside it is for people.
        return IsEqual(signature, expected) ? JsonDocument.Parse(text) : null;
    }

    /// <summary>The same with RSA; the key is what GET /api/v1/webhooks/public-key answers.</summary>
    public static JsonDocument? SignedEnvelopeRsa(string publicKeyPem, byte[] body)
    {
        using var message = JsonDocument.Parse(body);
        var text = message.RootElement.GetProperty("payloadAsString").GetString()!;
        var signature = Convert.FromBase64String(message.RootElement.GetProperty("signature").GetString()!);
        using var key = RSA.Create();
        key.ImportFromPem(publicKeyPem);
        var isSigned = key.VerifyData(Encoding.UTF8.GetBytes(text), signature, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        return isSigned ? JsonDocument.Parse(text) : null;
    }
}
